//! Runs a plan: one scheduler, one state machine per node, exactly one outcome for every item.
