//! The API over a long run: logs in again when a token has expired, and follows lists through breaks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::inventory::{
    Api, Change, InventoryError, KubernetesQuery, Refusal, WATCH_SECONDS, WatchEvent, api_query,
    connect,
};

/// How many objects a page holds at most, as `kubectl` asks.
const PAGE: &str = "500";
/// How long the API may be out of reach before the run gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// The pauses before the API is asked again: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A connection that can log in again.
pub struct Session {
    query: KubernetesQuery,
    api: Mutex<Arc<Api>>,
}

impl Session {
    /// Connects. Blocks while a login program runs.
    ///
    /// # Errors
    /// What is wrong with the kubeconfig, or what the login program said.
    pub fn open(query: &KubernetesQuery) -> Result<Self, InventoryError> {
        Ok(Self {
            query: query.clone(),
            api: Mutex::new(Arc::new(connect(query)?)),
        })
    }

    /// The client with the present login.
    pub(super) fn api(&self) -> Arc<Api> {
        let api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&api)
    }

    /// What to call the server.
    pub fn url(&self) -> String {
        self.api().url()
    }

    /// What the server answers at this path; with a new login where the present one has expired.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        match self.api().get(path).await {
            Err(Refusal::Status(401, _)) => {
                self.log_in_again().await;
                self.api().get(path).await
            }
            answer => answer,
        }
    }

    /// Changes something; with a new login where the present one has expired.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        change: Change,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Refusal> {
        match self.api().change(change, path, body).await {
            Err(Refusal::Status(401, _)) => {
                self.log_in_again().await;
                self.api().change(change, path, body).await
            }
            answer => answer,
        }
    }

    /// Logs in again: reads the kubeconfig and runs its login program. What fails shows at the next request.
    async fn log_in_again(&self) {
        let query = self.query.clone();
        let connected = tokio::task::spawn_blocking(move || connect(&query).ok()).await;
        if let Ok(Some(api)) = connected {
            *self.api.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(api);
        }
    }
}

/// What every object has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) labels: std::collections::BTreeMap<String, String>,
}

/// An object of the API.
pub(super) trait Object: DeserializeOwned + Send {
    fn metadata(&self) -> &Metadata;
}

/// Something that happened to a list.
#[derive(Debug)]
pub(super) enum Update<T> {
    /// All of it, as it is now.
    Listed(Vec<T>),
    Set(T),
    Deleted(T),
}

/// A list of the API: its path, and what is selected from it.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) path: String,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

/// The whole list, page by page, with the resource version to watch it from.
pub(super) async fn list<T: Object>(
    api: &Api,
    resource: &Resource,
) -> Result<(Vec<T>, String), Refusal> {
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let query = api_query(&[
            ("limit", Some(PAGE)),
            ("labelSelector", resource.labels.as_deref()),
            ("fieldSelector", resource.fields.as_deref()),
            (
                "continue",
                Some(next.as_str()).filter(|next| !next.is_empty()),
            ),
        ]);
        let page: Page<T> = api.get(&format!("{}{query}", resource.path)).await?;
        items.extend(page.items.unwrap_or_default());
        next = page.metadata.r#continue;
        if next.is_empty() {
            return Ok((items, page.metadata.resource_version));
        }
    }
}

/// Why the API is no longer followed.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) refusal: Refusal,
    pub(super) path: String,
}

/// Lists, then watches, for ever: returns only when the API refuses for good or cannot be reached for too long.
pub(super) async fn follow<T: Object>(
    session: &Session,
    resource: &Resource,
    updates: &mpsc::Sender<Update<T>>,
) -> Lost {
    let mut troubles = Troubles::default();
    loop {
        let version = match list(&session.api(), resource).await {
            Ok((items, version)) => {
                troubles = Troubles::default();
                let _ = updates.send(Update::Listed(items)).await;
                version
            }
            Err(refusal) => match troubles.wait_out(session, resource, refusal).await {
                Ok(()) => continue,
                Err(lost) => return lost,
            },
        };
        if let Err(lost) = watch(session, resource, version, updates, &mut troubles).await {
            return lost;
        }
    }
}

/// Watches until the list has to be read again.
async fn watch<T: Object>(
    session: &Session,
    resource: &Resource,
    mut version: String,
    updates: &mpsc::Sender<Update<T>>,
    troubles: &mut Troubles,
) -> Result<(), Lost> {
    let seconds = WATCH_SECONDS.to_string();
    loop {
        let query = api_query(&[
            ("watch", Some("1")),
            ("allowWatchBookmarks", Some("true")),
            ("timeoutSeconds", Some(&seconds)),
            ("resourceVersion", Some(&version)),
            ("labelSelector", resource.labels.as_deref()),
            ("fieldSelector", resource.fields.as_deref()),
        ]);
        let path = format!("{}{query}", resource.path);
        let began = Instant::now();
        let mut has_come = false;
        let refusal = match session.api().watch::<T>(&path).await {
            Err(refusal) => Some(refusal),
            Ok(mut watch) => loop {
                let event = match watch.next().await {
                    Ok(Some(event)) => event,
                    Ok(None) => break None,
                    Err(refusal) => break Some(refusal),
                };
                has_come = true;
                *troubles = Troubles::default();
                let (object, update): (_, fn(T) -> Update<T>) = match event {
                    WatchEvent::Bookmark(object) => {
                        version.clone_from(&object.metadata().resource_version);
                        continue;
                    }
                    WatchEvent::Set(object) => (object, Update::Set),
                    WatchEvent::Deleted(object) => (object, Update::Deleted),
                };
                version.clone_from(&object.metadata().resource_version);
                let _ = updates.send(update(object)).await;
            },
        };
        match refusal {
            // The server has forgotten what happened since then.
            Some(Refusal::Status(410, _)) => return Ok(()),
            Some(refusal) => troubles.wait_out(session, resource, refusal).await?,
            // A server, or a proxy before it, that ends every watch at once is not asked in a tight loop.
            None if !has_come && began.elapsed() < PAUSES.0 => sleep(Duration::from_secs(1)).await,
            None => *troubles = Troubles::default(),
        }
    }
}

/// Refusals without an answer in between.
#[derive(Debug, Default)]
struct Troubles {
    since: Option<Instant>,
    number: u32,
    has_logged_in: bool,
}

impl Troubles {
    /// Waits for the API to come back.
    async fn wait_out(
        &mut self,
        session: &Session,
        resource: &Resource,
        refusal: Refusal,
    ) -> Result<(), Lost> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let may_pass = match &refusal {
            Refusal::Status(401, _) => !std::mem::replace(&mut self.has_logged_in, true),
            Refusal::Status(410 | 429 | 500.., _) | Refusal::InputError(_) => true,
            Refusal::Status(..) => false,
        };
        if !may_pass || since.elapsed() > PATIENCE {
            let path = resource.path.clone();
            return Err(Lost { refusal, path });
        }
        if matches!(refusal, Refusal::Status(401, _)) {
            session.log_in_again().await;
            return Ok(());
        }
        let pause = PAUSES
            .0
            .saturating_mul(1 << self.number.min(8))
            .min(PAUSES.1);
        self.number += 1;
        sleep(pause).await;
        Ok(())
    }
}
