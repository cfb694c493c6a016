"""What moves accepted jobs forward: submit, poll, deliver."""
