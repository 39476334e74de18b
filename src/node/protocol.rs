//! The words and times that prepull and its program on a node share: `request` sends them along with the program.

use std::time::Duration;

/// What prepull says to the program on a node, a line each, newline included. The stand-ins for nodes in tests read
/// them from here, too.
pub mod word {
    /// End the command or the pull.
    pub const CANCEL: &str = "cancel\n";
    /// The command has ended; what it left running holds its output open: stop reading.
    pub const ENOUGH: &str = "enough\n";
    /// We are still here: the lease begins again.
    pub const BEAT: &str = "beat\n";
    /// The connection is needed elsewhere: the lease begins again, and the pull goes on by itself.
    pub const LEAVE: &str = "leave\n";
    /// All frames have arrived: the pull's directory can go.
    pub const DONE: &str = "done\n";
}

/// How long the program on a node waits between asking the operator's own command to end (TERM) and forcing it (KILL).
/// A runtime's client only has a connection to close: it gets one second.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How much longer than a connection the node waits before it ends a pull that exceeds a limit: a connection that watches
/// acts first, and says more.
pub(super) const GUARD_SLACK: Duration = Duration::from_secs(5);
/// How our program exits when another connection goes on with its pull.
pub(super) const TAKEN_OVER: u32 = 76;
