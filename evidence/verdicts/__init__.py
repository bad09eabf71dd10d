"""What the kept logs say about the paper's claims: ``python -m evidence.verdicts`` (or ``make evidence``)."""
