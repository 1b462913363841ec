"""How much may be used: rates a minute, and budgets a day and a month, for each key and each tenant."""
