"""Pictures: cards and charts drawn here, models' images, the visible label and the alternative text of each."""
