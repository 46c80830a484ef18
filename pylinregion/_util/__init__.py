"""What has nothing to do with networks: the words of errors and checks, files, memory."""
