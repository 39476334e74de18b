//! Asks for a run's logins again: files, helpers and the Kubernetes API block, and so get a thread of their own.

use futures::future::BoxFuture;

use crate::credentials::{self, LoginSources};
use crate::model::{Credential, Image, Plan, RegistryLogin};
use crate::ports::CredentialSource;

/// Where the plan's logins came from.
pub(super) struct CredentialRefresher {
    sources: LoginSources,
    images: Vec<Image>,
}

impl CredentialRefresher {
    pub(super) fn new(sources: &LoginSources, plan: &Plan) -> Self {
        let items = 0..plan.work.items();
        Self {
            // The run itself ends in time.
            sources: LoginSources {
                until: None,
                ..sources.clone()
            },
            images: items
                .filter_map(|item| plan.work.image(item).cloned())
                .collect(),
        }
    }
}

impl CredentialSource for CredentialRefresher {
    fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>> {
        let (sources, images) = (self.sources.clone(), self.images.clone());
        Box::pin(async move {
            let asking = tokio::task::spawn_blocking(move || {
                credentials::logins(&sources, &images).map_err(|error| error.to_string())
            });
            let found = asking.await.map_err(|error| error.to_string())??;
            let login = |found: Option<Credential>| found.map(|found| found.login);
            Ok(found.logins.into_iter().map(login).collect())
        })
    }
}
