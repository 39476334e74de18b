//! Report files: found out before a run whether they can be written after it.

use std::error::Error as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::Environment;
use crate::cli::ReportFile;

/// The files as they will be written, each once.
///
/// # Errors
/// A path that is a folder, or a folder that does not exist or where nothing can be written.
pub fn report_files(given: &[ReportFile], ambient: &Environment) -> Result<Vec<ReportFile>> {
    let mut files: Vec<ReportFile> = Vec::with_capacity(given.len());
    for ReportFile { path, form } in given {
        let path = ambient.path(path);
        let shown = path.display();
        if path.is_dir() {
            bail!("the report {shown} cannot be written: this is a folder, name a file in it");
        }
        let folder = Path::new(".").join(path.parent().unwrap_or(Path::new("")));
        // Only trying tells: a file system may be read-only, and root may write nearly anywhere else.
        if let Err(error) = tempfile::Builder::new()
            .prefix(".prepull-")
            .tempfile_in(folder)
        {
            // The name of the file that was tried says nothing to the operator.
            let why = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            bail!("the report {shown} cannot be written: {why}");
        }
        let file = ReportFile { path, form: *form };
        if !files.contains(&file) {
            files.push(file);
        }
    }
    Ok(files)
}
