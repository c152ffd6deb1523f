"""Operations on a vocabulary: tokens added to a model, or taken out of it; rows that stay are never changed."""
