"""The injection detector's training: texts made by templates, texts of packages installed, and labelled sets."""
