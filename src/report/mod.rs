//! Reporters: turn the facts of a run into what people and programs read. Nothing else prints.
