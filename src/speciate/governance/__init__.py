"""Who may decide, and the proof of it: approvals, keys of people, the audit, policy and consents.

May use: datasets and below."""
