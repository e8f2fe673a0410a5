"""The first-party plugins, registered by entry point exactly as a stranger's are."""
