"""Made-up companies whose agents spend money, and frauds among their payments: synthetic, and seeded."""
