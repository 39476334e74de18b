//! Brings one blob into the spool, chunk by chunk, from wherever its image comes from at the time.

use std::sync::Arc;

use pull_through::Digest;
use ring::digest::{Context, SHA256};
use tokio::task::spawn_blocking;

use crate::blob::Blob;
use crate::chunk::{self, CHUNK, Header};
use crate::image::Next;
use crate::protocol::{FromRelay, Peer};
use crate::shared::{Shared, locked};
use crate::{origin, parent};

/// How often a blob may turn out wrong as a whole.
const ATTEMPTS: u32 = 3;

/// Why the next chunk did not come from where it was asked for.
pub(crate) enum Trouble {
    /// It is to come from elsewhere: that was said.
    Replaced,
    /// A parent broke off.
    Lost(String),
    /// A parent sent what cannot be right.
    Lies(String),
    /// The registry wants another authorization.
    Unauthorized(Option<String>),
    /// The registry does not give it.
    Source(String),
    /// All of it came, and is not the blob.
    Wrong(String),
    /// It cannot be kept.
    Spool(String),
}

pub(crate) async fn fill(blob: Arc<Blob>, shared: Arc<Shared>) {
    let mut attempts = 0;
    let why = loop {
        attempts += 1;
        match fill_once(&blob, &shared).await {
            Ok(()) => {
                let images: Vec<_> = locked(&shared.images).values().cloned().collect();
                for image in images {
                    image.look_whether_complete(&shared);
                }
                return;
            }
            Err(Trouble::Wrong(why)) if attempts < ATTEMPTS => blob.begin(Some(&why)),
            Err(Trouble::Wrong(why) | Trouble::Spool(why)) => break why,
            // All others are dealt with where they happen.
            Err(_) => break "it cannot be fetched".to_string(),
        }
    };
    blob.fail(&why);
    shared.say(FromRelay::BlobFailed {
        image: blob.image.repository.clone(),
        blob: blob.digest.to_string(),
        why,
    });
}

async fn fill_once(blob: &Arc<Blob>, shared: &Arc<Shared>) -> Result<(), Trouble> {
    let mut writer = Writer::new(Arc::clone(blob), Arc::clone(shared));
    let image = &blob.image;
    while !writer.is_done() {
        let (version, next) = image.next(shared);
        match next {
            Next::Wait => image.changed(version).await,
            Next::Registry(registry) => {
                let _one = shared.fetches.acquire().await;
                let fetched = origin::fetch(&registry, &mut writer).await;
                let repository = image.repository.clone();
                match fetched {
                    Ok(()) | Err(Trouble::Replaced) => {}
                    Err(Trouble::Unauthorized(challenge)) => {
                        let image_ = repository;
                        let what = FromRelay::Unauthorized {
                            image: image_,
                            challenge,
                        };
                        image.give_up_source(shared, version, what);
                    }
                    Err(Trouble::Source(why)) => {
                        let what = FromRelay::SourceFailed {
                            image: repository,
                            why,
                        };
                        image.give_up_source(shared, version, what);
                    }
                    Err(other) => return Err(other),
                }
            }
            Next::Parent(peer) => {
                let _one = shared.fetches.acquire().await;
                if let Err(trouble) = parent::fetch(&peer, &mut writer).await {
                    after_parent(&peer, version, &writer, trouble)?;
                }
            }
        }
    }
    Ok(())
}

fn after_parent(
    peer: &Peer,
    version: u64,
    writer: &Writer,
    trouble: Trouble,
) -> Result<(), Trouble> {
    let (blob, shared) = (&writer.blob, &writer.shared);
    match trouble {
        Trouble::Lost(why) => blob.image.lose(shared, peer, version, why),
        Trouble::Lies(why) => blob.image.ban(shared, peer, &blob.digest, why),
        Trouble::Wrong(why) => {
            blob.image.lose(shared, peer, version, why.clone());
            return Err(Trouble::Wrong(why));
        }
        Trouble::Replaced => {}
        other => return Err(other),
    }
    Ok(())
}

/// Checks chunks, keeps them and releases them.
pub(crate) struct Writer {
    pub(crate) blob: Arc<Blob>,
    pub(crate) shared: Arc<Shared>,
    whole: Context,
    /// The next chunk.
    pub(crate) index: u64,
    /// What a registry sent of it so far.
    pub(crate) part: Vec<u8>,
}

impl Writer {
    fn new(blob: Arc<Blob>, shared: Arc<Shared>) -> Self {
        Self {
            blob,
            shared,
            whole: Context::new(&SHA256),
            index: 0,
            part: Vec::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.index == chunk::count(self.blob.size)
    }

    /// How long the next chunk is.
    pub(crate) fn due(&self) -> usize {
        chunk::length(self.blob.size, self.index)
    }

    /// A whole chunk: with the header that a parent sent, or without one from a registry, to be signed here.
    pub(crate) async fn accept(
        &mut self,
        bytes: Vec<u8>,
        header: Option<Header>,
    ) -> Result<(), Trouble> {
        let (blob, shared, index) = (Arc::clone(&self.blob), Arc::clone(&self.shared), self.index);
        let mut whole = self.whole.clone();
        let working = spawn_blocking(move || {
            let header = checked(&blob, &shared, index, &bytes, header)?;
            whole.update(&bytes);
            let written = blob.write(&shared, index * CHUNK, &bytes);
            written
                .map_err(|error| Trouble::Spool(format!("cannot write to the spool: {error}")))?;
            Ok((whole, header))
        });
        let (whole, header) = working
            .await
            .map_err(|error| Trouble::Spool(format!("cannot write to the spool: {error}")))??;
        if self.index + 1 == chunk::count(self.blob.size) {
            self.compare(whole)?;
        } else {
            self.whole = whole;
        }
        self.index += 1;
        self.blob.release(header);
        Ok(())
    }

    fn compare(&self, whole: Context) -> Result<(), Trouble> {
        let mut hash = [0; 32];
        hash.copy_from_slice(whole.finish().as_ref());
        let (got, wanted) = (Digest::from(hash), self.blob.digest);
        match got == wanted {
            true => Ok(()),
            false => Err(Trouble::Wrong(format!(
                "{got} came for {wanted}, as a whole"
            ))),
        }
    }
}

fn checked(
    blob: &Blob,
    shared: &Shared,
    index: u64,
    bytes: &[u8],
    header: Option<Header>,
) -> Result<Header, Trouble> {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
    let Some(header) = header else {
        // A chunk is much shorter than 4 GiB.
        let length = bytes.len() as u32;
        let statement = chunk::statement(&blob.digest, index, length, &sha256);
        let signature = shared.identity.sign(&statement);
        return Ok(Header {
            length,
            sha256,
            signature,
        });
    };
    if header.sha256 != sha256 {
        return Err(Trouble::Lies(format!(
            "chunk {index} is not what its header says"
        )));
    }
    let signers = locked(&shared.signers).clone();
    match header.is_signed(&blob.digest, index, &signers) {
        true => Ok(header),
        false => Err(Trouble::Lies(format!(
            "chunk {index} has no signature of a root of this run"
        ))),
    }
}
