"""Answers to people who write to an account: only when asked, and only from the brand's own texts."""
