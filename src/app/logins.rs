//! Asks for a run's logins again: files, helpers and the Kubernetes API block, and so get a thread of their own.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::credentials::{self, LoginSources};
use crate::model::{Credential, Image, Plan, RegistryLogin};
use crate::ports::CredentialSource;
use crate::registry::LoginRenewal;

/// A login that was found as short ago as this would be found again.
const FRESH: Duration = Duration::from_secs(10);

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

/// One for each image, or why there is none.
type Answer = Result<Vec<Option<RegistryLogin>>, String>;

/// The logins with which prepull itself reads images, asked for again once for all that a registry refused.
pub(super) struct RenewedLogins {
    source: Box<dyn CredentialSource>,
    /// The last answer, and when it came.
    known: Mutex<Option<(Instant, Answer)>>,
}

impl RenewedLogins {
    pub(super) fn new(source: Box<dyn CredentialSource>) -> Self {
        Self {
            source,
            known: Mutex::default(),
        }
    }

    /// The login of one image of the plan.
    pub(super) fn of(all: &Arc<Self>, item: usize) -> RenewedLogin {
        RenewedLogin {
            all: Arc::clone(all),
            item,
        }
    }
}

/// The login of one image.
pub(super) struct RenewedLogin {
    all: Arc<RenewedLogins>,
    item: usize,
}

impl LoginRenewal for RenewedLogin {
    fn instead_of<'a>(
        &'a self,
        refused: &'a RegistryLogin,
    ) -> BoxFuture<'a, Result<Option<RegistryLogin>, String>> {
        Box::pin(async move {
            // The first asks, the others wait.
            let mut known = self.all.known.lock().await;
            let of_item =
                |logins: &[Option<RegistryLogin>]| logins.get(self.item).cloned().flatten();
            if let Some((asked, answer)) = &*known {
                let found = answer.as_deref().map(of_item).map_err(String::clone);
                let is_other = matches!(&found, Ok(login) if login.as_ref() != Some(refused));
                if is_other || asked.elapsed() < FRESH {
                    return found;
                }
            }
            let answer = self.all.source.ask().await;
            let found = answer.as_deref().map(of_item).map_err(String::clone);
            *known = Some((Instant::now(), answer));
            found
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::model::Secret;

    /// Hands out a login for two images that is another one each time, and counts.
    struct Helper(Arc<AtomicUsize>);

    fn login(number: usize) -> RegistryLogin {
        RegistryLogin::RegistryToken(Secret::new(number.to_string()))
    }

    impl CredentialSource for Helper {
        fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>> {
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(std::future::ready(Ok(vec![Some(login(number)); 2])))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_several_images_were_refused_is_asked_for_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let all = Arc::new(RenewedLogins::new(Box::new(Helper(Arc::clone(&asked)))));
        let [one, two] = [0, 1].map(|item| RenewedLogins::of(&all, item));
        assert_eq!(one.instead_of(&login(0)).await, Ok(Some(login(1))));
        assert_eq!(two.instead_of(&login(0)).await, Ok(Some(login(1))));
        // Refused when it is fresh: no other would be found.
        assert_eq!(one.instead_of(&login(1)).await, Ok(Some(login(1))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(FRESH).await;
        assert_eq!(one.instead_of(&login(1)).await, Ok(Some(login(2))));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
