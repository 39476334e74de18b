//! Tests of reading identities.
use super::*;
