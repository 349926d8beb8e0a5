"""One module per subcommand of `provectl`."""
