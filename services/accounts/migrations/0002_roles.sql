-- What an account may do beside what everybody may. Its tokens carry these from the next login on.
CREATE TABLE account_roles (
    account_id TEXT NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (account_id, role)
);
