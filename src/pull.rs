//! A pull over a fleet, for programs: the nodes and images, how the run goes, its events, and what became of each
//! image.

use std::pin::pin;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::engine::{self, Finish, Supply};
use crate::model::{
    Credential, Event, EventKind, Fleet, FleetError, Image, ImageError, LoginSource, Node, Plan,
    PlannedImage, Policy, RegistryLogin, StopReason, Work, pull_token,
};
use crate::ports::CredentialSource;
use crate::runtime;
use crate::ssh::config::LocalEnv;
use crate::ssh::{HostSettings, SshError, SshOptions, SshTransport};

/// Events that wait for the program that called, at most; the engine waits where it does not keep up.
const EVENTS_UNDER_WAY: usize = 1024;

/// A pull of images onto the nodes of a fleet, not yet started.
///
/// Nodes are reached as OpenSSH's client would reach them with the operator's keys, agent and `known_hosts`, and
/// without any ssh_config; [`Pull::ssh`] says otherwise.
#[derive(Debug)]
pub struct Pull {
    fleet: Fleet,
    images: Vec<PlannedImage>,
    policy: Policy,
    ssh: Option<SshOptions>,
}

/// Why a pull could not begin. No node was connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// An image reference is not one.
    #[error("\"{reference}\" is not an image: {error}")]
    Image {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// There is no node, or two have one name.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A key, `known_hosts` or another of the operator's SSH files cannot be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The password database does not know who runs this, so that the SSH files of the home directory cannot be found.
    #[error("{0}: give the settings of SSH explicitly")]
    Home(String),
}

impl Pull {
    /// A pull of these images onto these nodes, with the policy that the command line has by default.
    ///
    /// # Errors
    /// A reference is malformed, there is no node, or two nodes have one name.
    pub fn new<I>(nodes: Vec<Node>, images: I) -> Result<Self, PullError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let planned = |reference: I::Item| {
            let reference = reference.as_ref();
            match reference.parse::<Image>() {
                Ok(image) => Ok(PlannedImage { image, login: None }),
                Err(error) => Err(PullError::Image {
                    reference: reference.to_string(),
                    error,
                }),
            }
        };
        Ok(Self {
            fleet: Fleet::new(nodes)?,
            images: images.into_iter().map(planned).collect::<Result<_, _>>()?,
            policy: Policy::default(),
            ssh: None,
        })
    }

    /// How many nodes at a time, what is retried, limits of time.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// How nodes are reached; [`Node::ssh_settings`] is an index into [`SshOptions::hosts`].
    #[must_use]
    pub fn ssh(self, options: SshOptions) -> Self {
        Self {
            ssh: Some(options),
            ..self
        }
    }

    /// The login for the images of one registry, as it stands in references (`registry.example:5000`; `docker.io` for
    /// those that name none).
    #[must_use]
    pub fn login(mut self, registry: &str, login: &RegistryLogin) -> Self {
        for planned in &mut self.images {
            if planned.image.registry() == registry {
                planned.login = Some(Credential {
                    login: login.clone(),
                    source: LoginSource::Caller,
                });
            }
        }
        self
    }

    /// Runs it to its end, within a tokio runtime. Every (node, image) ends with exactly one outcome. Events come in
    /// order, numbered from 1; nodes and images in them are indices. When `stop` completes, no further node is started,
    /// what runs is cancelled, and the rest is reported as not run.
    ///
    /// # Errors
    /// The operator's SSH files cannot be used. What goes wrong on a node is not an error but an outcome.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Finish, PullError> {
        let options = match self.ssh {
            Some(options) => options,
            None => {
                let me = LocalEnv::of_this_process().map_err(PullError::Home)?;
                SshOptions {
                    hosts: vec![HostSettings::for_home(&me.home)],
                    ..SshOptions::default()
                }
            }
        };
        let transport = SshTransport::new(options, self.fleet.nodes())?;
        let logins = Given(self.images.iter().map(login_of).collect());
        let plan = Plan {
            pull_token: pull_token(),
            ..Plan::new(self.fleet, Work::Pull(self.images), self.policy)
        };
        let (facts, mut received) = mpsc::channel::<(Duration, EventKind)>(EVENTS_UNDER_WAY);
        let (stop_sender, stopped) = watch::channel(None);
        let running = async {
            let finish = engine::run(
                &plan,
                &transport,
                &runtime::all(),
                &logins,
                Supply::default(),
                facts,
                stopped,
            )
            .await;
            transport.close().await;
            finish
        };
        let telling = async {
            let mut number = 0;
            while let Some((at, fact)) = received.recv().await {
                number += 1;
                on_event(&Event { number, at, fact });
            }
        };
        let mut ended = pin!(futures::future::join(running, telling));
        let (finish, ()) = tokio::select! {
            ended = &mut ended => ended,
            () = stop => {
                // The engine holds the other end until it has ended.
                let _ = stop_sender.send(Some(StopReason::Interrupted));
                ended.await
            }
        };
        Ok(finish)
    }
}

fn login_of(planned: &PlannedImage) -> Option<RegistryLogin> {
    planned.login.as_ref().map(|found| found.login.clone())
}

/// The logins that the caller gave: they do not change.
struct Given(Vec<Option<RegistryLogin>>);

impl CredentialSource for Given {
    fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}
