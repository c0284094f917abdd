@rem npm scripts begin with exec, which replaces the shell, so that signals for npm reach the script; cmd has no such command.
@%*
