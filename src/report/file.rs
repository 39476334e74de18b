//! Reports in files: complete or not there at all, whatever happens while they are written.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::html::page;
use super::json::write_document;
use super::junit::junit;
use super::prometheus::prometheus;
use super::timeline::Timeline;
use super::{Reporter, RunInfo, RunResult};
use crate::model::Event;

/// What is written to a report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportForm {
    /// The document of `-o json`.
    Json,
    /// JUnit XML.
    Junit,
    /// A page for people.
    Html,
    /// Metrics for node_exporter's textfile collector.
    Prometheus,
}

/// A report that becomes a file at the end of the run.
#[derive(Debug)]
pub struct FileReport {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Json,
    Junit,
    Html(Timeline),
    Prometheus,
}

impl FileReport {
    /// The report will be at `path`, and replace what is there.
    pub fn new(info: &RunInfo, path: PathBuf, form: ReportForm) -> Self {
        let form = match form {
            ReportForm::Json => Form::Json,
            ReportForm::Junit => Form::Junit,
            ReportForm::Prometheus => Form::Prometheus,
            ReportForm::Html => Form::Html(Timeline::new(info.plan.fleet.nodes().len())),
        };
        Self { path, form }
    }
}

impl Reporter for FileReport {
    fn event(&mut self, event: &Event) {
        if let Form::Html(timeline) = &mut self.form {
            timeline.note(event);
        }
    }

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        let form = &mut self.form;
        let content = |out: &mut dyn io::Write| match form {
            Form::Json => write_document(result, out),
            Form::Junit => junit(result, out),
            Form::Prometheus => prometheus(result, out),
            Form::Html(timeline) => {
                let timeline = std::mem::replace(timeline, Timeline::new(0));
                out.write_all(page(result, timeline)?.as_bytes())
            }
        };
        write(&self.path, content).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("report {}: {error}", self.path.display()),
            )
        })
    }
}

/// Beside its place first, so that half a file is never read. Who may read it is as for any new file.
fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = Path::new(".").join(path.parent().unwrap_or(Path::new("")));
    let mut file = tempfile::Builder::new()
        .prefix(".prepull-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    let mut out = io::BufWriter::new(&mut file);
    content(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
