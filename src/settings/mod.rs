//! What the operator asked for, checked: arguments, environment, files and prompts become settings.
