//! Host expressions with their operators (`,`, `!`, `&`, `^`): the hosts that they name together.

use super::expression::wrong;
pub use super::expression::{ExpressionError, HostSpec, NODE_LIMIT};
pub(super) use super::expression::{expand_piece, pieces, too_many};
use super::sets::{self, HostSet};

/// All hosts that the expressions in `text` name, each once, in order.
///
/// # Errors
/// An [`ExpressionError`] when something is not an expression, or names more than [`NODE_LIMIT`] hosts.
pub fn expand(text: &str) -> Result<Vec<HostSpec>, ExpressionError> {
    expand_within(text, NODE_LIMIT)
}

/// Like [`expand`], for an inventory where only `room` nodes are left before the limit.
pub(super) fn expand_within(text: &str, room: usize) -> Result<Vec<HostSpec>, ExpressionError> {
    let mut found = HostSet::new(room);
    for term in sets::terms(text)? {
        let at = term.piece.at;
        let hosts = expand_piece(&term.piece, found.room(term.operator))?;
        let hosts = hosts.into_iter().map(|spec| (spec, ())).collect();
        found
            .apply(term.operator, hosts)
            .or_else(|fault| wrong(at, fault))?;
    }
    Ok(found.into_entries().map(|(spec, ())| spec).collect())
}
