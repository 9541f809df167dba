"""What the API takes and answers: JSON at the edge, checked here, with its own names for nothing.

Requests are checked strictly (a number is no string, a string no number) and refuse unknown fields. Durations are ISO 8601
text (`PT5M`), times RFC 3339. Answers never hold a secret: there is no field for one.
"""
