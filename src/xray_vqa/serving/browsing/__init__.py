"""What the console shows beside a single answer: lists of answers, their images, figures, words for declarations."""
