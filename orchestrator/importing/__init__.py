"""Other tools' configurations and command lines as job files, and job files as theirs."""
