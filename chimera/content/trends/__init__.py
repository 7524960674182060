"""What people begin to talk about: bursts of terms, topics made of them, how new they are, and the evidence."""
