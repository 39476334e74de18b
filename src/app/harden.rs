//! Keeps what is in this process from others: no core dump, and no look into its memory by the same user's processes.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// What a system refuses is left as it is: no image should wait for it.
pub(super) fn harden() {
    // Programs that we start get the limit too: helpers hold secrets as well.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // A core dump that goes to a program (systemd-coredump) does not ask for the limit.
    let _ = prctl::set_dumpable(false);
}
