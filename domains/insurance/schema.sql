-- Names are short single words because every token of a schema card is paid for in each prompt.
-- A key has one name in both of its tables, so that joins can be written with USING.
CREATE TABLE branches (
    branch_id INTEGER PRIMARY KEY,
    city TEXT NOT NULL,
    region TEXT NOT NULL CHECK (region IN ('north', 'south', 'east', 'west')),
    opened TEXT NOT NULL
);
CREATE TABLE agents (
    agent_id INTEGER PRIMARY KEY,
    branch_id INTEGER NOT NULL REFERENCES branches,
    name TEXT NOT NULL UNIQUE,
    grade TEXT NOT NULL CHECK (grade IN ('junior', 'senior', 'partner')),
    hired TEXT NOT NULL
);
CREATE TABLE customers (
    customer_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('person', 'company')),
    city TEXT NOT NULL,
    age INTEGER,  -- NULL for a company
    CHECK ((kind = 'company') = (age IS NULL))
);
CREATE TABLE policies (
    policy_id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers,
    agent_id INTEGER REFERENCES agents,  -- NULL when sold without an agent
    product TEXT NOT NULL CHECK (product IN ('auto', 'home', 'travel', 'boat')),
    status TEXT NOT NULL CHECK (status IN ('active', 'lapsed', 'cancelled')),
    started TEXT NOT NULL,
    premium REAL NOT NULL CHECK (premium > 0)
);
CREATE TABLE coverages (
    coverage_id INTEGER PRIMARY KEY,
    policy_id INTEGER NOT NULL REFERENCES policies,
    kind TEXT NOT NULL CHECK (kind IN ('liability', 'glass', 'contents', 'injury')),
    cap REAL NOT NULL CHECK (cap > 0),
    excess REAL  -- NULL when the insurer bears the whole loss
);
CREATE TABLE invoices (
    invoice_id INTEGER PRIMARY KEY,
    policy_id INTEGER NOT NULL REFERENCES policies,
    due TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('paid', 'unpaid', 'overdue')),
    amount REAL NOT NULL CHECK (amount > 0)
);
CREATE TABLE vehicles (
    vehicle_id INTEGER PRIMARY KEY,
    policy_id INTEGER NOT NULL REFERENCES policies,
    make TEXT NOT NULL CHECK (make IN ('Ford', 'Toyota', 'Volvo', 'Fiat')),
    fuel TEXT NOT NULL CHECK (fuel IN ('petrol', 'diesel', 'electric', 'hybrid')),
    value REAL  -- NULL until appraised
);
CREATE TABLE claims (
    claim_id INTEGER PRIMARY KEY,
    policy_id INTEGER NOT NULL REFERENCES policies,
    filed TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('theft', 'fire', 'water', 'storm', 'collision')),
    status TEXT NOT NULL CHECK (status IN ('open', 'settled', 'rejected')),
    amount REAL NOT NULL CHECK (amount > 0)
);
CREATE TABLE payments (
    payment_id INTEGER PRIMARY KEY,
    claim_id INTEGER NOT NULL REFERENCES claims,
    paid TEXT NOT NULL,
    method TEXT NOT NULL CHECK (method IN ('transfer', 'cheque', 'card')),
    amount REAL NOT NULL CHECK (amount > 0)
);
CREATE TABLE reserves (
    reserve_id INTEGER PRIMARY KEY,
    claim_id INTEGER NOT NULL REFERENCES claims,
    kind TEXT NOT NULL CHECK (kind IN ('legal', 'medical', 'repair')),
    booked TEXT NOT NULL,
    amount REAL NOT NULL CHECK (amount > 0)
);
