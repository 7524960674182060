"""Evidence: sentences that answer a question, found in documents offline and quoted word for word."""
