//! Registry and SSH secrets: from files, standard input and prompts.
