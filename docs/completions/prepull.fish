complete --keep-order --exclusive --command prepull --arguments "(PREPULL_COMPLETE=fish prepull -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
