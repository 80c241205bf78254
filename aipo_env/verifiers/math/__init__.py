"""Whether an answer is the gold: from text to forms, exact numbers and algebra."""
