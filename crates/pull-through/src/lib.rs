#![doc = include_str!("../README.md")]

mod access;
mod archive;
mod blob;
mod digest;
mod error;
mod limit;
mod manifest;
mod range;
mod server;
mod source;
mod store;
mod through;

pub use access::{Access, Usage};
pub use archive::{Archive, Form};
pub use digest::{Digest, InvalidDigest, Reference};
pub use error::{ConnectionError, Error};
pub use limit::UploadLimit;
pub use manifest::{Blob, Platform};
pub use source::{Arriving, BlobStream, LocalBlob, Progress, Source, SourceError};
pub use store::Store;
pub use through::{Contents, Counters, Image, PullThrough};
