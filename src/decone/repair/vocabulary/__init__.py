"""Changes of a vocabulary: tokens added to a model or taken out of it, while other rows stay byte for byte."""
