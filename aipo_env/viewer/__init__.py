"""Episodes as text and HTML; whatever a model wrote is escaped."""
