//! What became of a run's passwords: a wrong one must not lock an account by being tried on every node.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Secret;

/// How many more hosts may refuse a password than accept it before it is tried no more. Accounts in a directory are
/// commonly locked after three to ten failures. A hostile host may accept anything, so acceptances only widen this.
const MOST_REFUSALS: usize = 2;

/// One user's accounts, by password.
type Accounts = Vec<(Secret, Arc<Account>)>;

/// What became of the passwords that were tried, by user and password.
///
/// A host that did not accept a password is not sent it again. At first one host at a time is sent it; each host that
/// accepts it lets one more try at the same time, and each that does not, one less. After two more refusals than
/// acceptances no other host is sent it.
#[derive(Default)]
pub struct Passwords {
    accounts: Mutex<HashMap<String, Accounts>>,
    is_any_given_up: Arc<AtomicBool>,
}

/// One password of one user.
struct Account {
    is_any_given_up: Arc<AtomicBool>,
    /// Held by the attempts at hosts that have not accepted the password yet.
    turns: Arc<Semaphore>,
    tries: Mutex<Tries>,
}

#[derive(Default)]
struct Tries {
    /// The hosts that accepted it.
    accepted: HashSet<String>,
    /// The hosts that were sent it and did not accept it.
    refused: HashSet<String>,
}

impl Tries {
    fn is_given_up(&self) -> bool {
        self.refused.len() >= self.accepted.len() + MOST_REFUSALS
    }
}

/// Why a password is not sent to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withheld {
    /// This host was sent it before and did not accept it.
    SentBefore,
    /// These hosts did not accept it, and too few others have.
    Refused {
        /// Those that did not.
        hosts: Vec<String>,
        /// How many did.
        accepted: usize,
    },
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SentBefore => {
                out.write_str("this host was sent it before in this run and did not accept it")
            }
            Self::Refused { hosts, accepted } => {
                let others = match accepted {
                    0 => "no host has".to_owned(),
                    1 => "only one host has".to_owned(),
                    number => format!("only {number} hosts have"),
                };
                write!(
                    out,
                    "{} did not accept it and {others}, and further tries could lock the account",
                    hosts.join(" and ")
                )
            }
        }
    }
}

impl Passwords {
    /// Leave to send `host` this password, which may be a long time coming. Cancel-safe.
    ///
    /// # Errors
    /// Why it must not be sent.
    pub async fn permit(
        &self,
        user: &str,
        password: &Secret,
        host: &str,
    ) -> Result<Permit, Withheld> {
        let account = self.account(user, password);
        if let Some(answer) = account.answer(host) {
            return answer;
        }
        // It is never closed, so there is no error.
        let turn = Arc::clone(&account.turns).acquire_owned().await.ok();
        account
            .answer(host)
            .unwrap_or_else(|| Ok(account.leave(host, turn)))
    }

    /// Whether some password is tried no more.
    pub fn is_any_given_up(&self) -> bool {
        self.is_any_given_up.load(Ordering::Relaxed)
    }

    fn account(&self, user: &str, password: &Secret) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        let of_user = accounts.entry(user.to_owned()).or_default();
        let known = of_user.iter().find(|(known, _)| known == password);
        if let Some((_, account)) = known {
            return Arc::clone(account);
        }
        let account = Arc::new(Account {
            is_any_given_up: Arc::clone(&self.is_any_given_up),
            turns: Arc::new(Semaphore::new(1)),
            tries: Mutex::default(),
        });
        of_user.push((password.clone(), Arc::clone(&account)));
        account
    }
}

impl Account {
    /// What holds for this host; nothing where it has to wait for its turn.
    fn answer(self: &Arc<Self>, host: &str) -> Option<Result<Permit, Withheld>> {
        let tries = lock(&self.tries);
        if tries.accepted.contains(host) {
            return Some(Ok(self.leave(host, None)));
        }
        if tries.refused.contains(host) {
            return Some(Err(Withheld::SentBefore));
        }
        tries.is_given_up().then(|| {
            let mut hosts: Vec<String> = tries.refused.iter().cloned().collect();
            hosts.sort_unstable();
            Err(Withheld::Refused {
                hosts,
                accepted: tries.accepted.len(),
            })
        })
    }

    fn leave(self: &Arc<Self>, host: &str, turn: Option<OwnedSemaphorePermit>) -> Permit {
        Permit {
            account: Some(Arc::clone(self)),
            host: host.to_owned(),
            turn,
        }
    }
}

/// Leave to send a password to one host, once. Dropped without a word, it counts as a refusal: the host may have
/// counted the password as a wrong one.
#[must_use]
pub struct Permit {
    /// Nothing once it is known what became of it.
    account: Option<Arc<Account>>,
    host: String,
    /// Nothing for a host that has accepted the password before.
    turn: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// The host accepted the password.
    pub fn accepted(mut self) {
        if let Some(account) = self.account.take() {
            let mut tries = lock(&account.tries);
            tries.accepted.insert(std::mem::take(&mut self.host));
            if self.turn.is_some() {
                account.turns.add_permits(1);
            }
        }
    }

    /// The password was not sent after all.
    pub fn unused(mut self) {
        self.account = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            let host = std::mem::take(&mut self.host);
            let mut tries = lock(&account.tries);
            let is_one_of_several = tries.accepted.len() > tries.refused.len();
            tries.refused.insert(host);
            if is_one_of_several && let Some(turn) = self.turn.take() {
                turn.forget();
            }
            if tries.is_given_up() {
                account.is_any_given_up.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn password() -> Secret {
        Secret::new("battery")
    }

    async fn permit(passwords: &Passwords, host: &str) -> Result<Permit, Withheld> {
        passwords.permit("ops", &password(), host).await
    }

    /// What is answered at once; nothing where the host has to wait.
    fn at_once(passwords: &Passwords, host: &str) -> Option<Result<Permit, Withheld>> {
        // tokio has a task wait now and then for the sake of others.
        tokio::task::coop::unconstrained(permit(passwords, host)).now_or_never()
    }

    #[tokio::test]
    async fn one_host_at_a_time_tries_a_password_that_none_has_accepted() {
        let passwords = Passwords::default();
        let first = permit(&passwords, "a").await.unwrap();
        let mut second = Box::pin(permit(&passwords, "b"));
        assert!(second.as_mut().now_or_never().is_none());
        // Others do not wait for it.
        let others = [("root", "battery"), ("ops", "staple")];
        for (user, other) in others {
            let permit = passwords
                .permit(user, &Secret::new(other), "a")
                .now_or_never();
            permit.unwrap().unwrap().unused();
        }
        first.accepted();
        let second = second.await.unwrap();
        // One has accepted it: two at a time now.
        let third = permit(&passwords, "c").now_or_never().unwrap().unwrap();
        assert!(permit(&passwords, "d").now_or_never().is_none());
        drop(second);
        // One of two that are known has refused it.
        assert!(permit(&passwords, "d").now_or_never().is_none());
        third.accepted();
        let fourth = permit(&passwords, "d").now_or_never().unwrap().unwrap();
        fourth.unused();
        assert!(!passwords.is_any_given_up());
        assert_eq!(
            permit(&passwords, "b").await.err(),
            Some(Withheld::SentBefore)
        );
        permit(&passwords, "a").await.unwrap().accepted();
    }

    /// Of many honest hosts no more than three count a failure where one host accepts whatever it is sent.
    #[tokio::test]
    async fn a_host_that_accepts_everything_costs_one_more_refusal() {
        let passwords = Passwords::default();
        permit(&passwords, "liar").await.unwrap().accepted();
        let mut refusals = 0;
        for round in 0..100 {
            let hosts = [0, 1, 2, 3].map(|host| format!("{round}-{host}"));
            let all = hosts
                .each_ref()
                .map(|host| permit(&passwords, host).now_or_never());
            let permits: Vec<Permit> = all.into_iter().flatten().flatten().collect();
            refusals += permits.len();
        }
        assert_eq!(refusals, 3);
        let why = permit(&passwords, "late").await.err().unwrap().to_string();
        assert!(why.contains("only one host has"), "{why}");
        permit(&passwords, "liar").await.unwrap().accepted();
    }

    #[tokio::test]
    async fn a_password_that_is_right_soon_reaches_all() {
        let passwords = Passwords::default();
        let mut rounds = 0;
        let mut left: Vec<String> = (0..1000).map(|host| host.to_string()).collect();
        while !left.is_empty() {
            rounds += 1;
            let mut permits = Vec::new();
            left.retain(|host| match at_once(&passwords, host) {
                Some(permit) => {
                    permits.push(permit.unwrap());
                    false
                }
                None => true,
            });
            for (number, permit) in permits.into_iter().enumerate() {
                // A few have another password.
                if number % 50 != 49 {
                    permit.accepted();
                }
            }
        }
        assert!(rounds <= 12, "{rounds}");
    }

    #[tokio::test]
    async fn two_refusals_are_enough_for_all() {
        let passwords = Passwords::default();
        drop(permit(&passwords, "a").await.unwrap());
        assert_eq!(
            permit(&passwords, "a").await.err(),
            Some(Withheld::SentBefore)
        );
        permit(&passwords, "b").await.unwrap().unused();
        assert!(!passwords.is_any_given_up());
        let trying = permit(&passwords, "b").await.unwrap();
        let mut waiting = Box::pin(permit(&passwords, "c"));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(trying);
        let refused = Withheld::Refused {
            hosts: vec!["a".into(), "b".into()],
            accepted: 0,
        };
        assert_eq!(waiting.await.err(), Some(refused.clone()));
        assert_eq!(permit(&passwords, "d").await.err(), Some(refused));
        assert!(passwords.is_any_given_up());
    }
}
