"""What an audit leaves behind: files, and a summary in the terminal."""
