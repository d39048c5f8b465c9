"""DisCoM-KD: students of single modalities without a teacher."""
