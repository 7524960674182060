-- The tables of the ledger. In the first eight rows are only ever added: what somebody said, and then what the database
-- says of it (seq, at, prev, hash). All others follow from these, and only triggers write them.

-- Lengths are asked for apart: a pattern that counts is matched many times slower. A domain's CHECK is read once in a
-- session, a table's in every statement: tables that change with every transfer have as few as can be.
CREATE DOMAIN chimera_treasury.id AS text COLLATE "C"
    CHECK (length(VALUE) <= 96 AND VALUE ~ '^[A-Za-z0-9][A-Za-z0-9_.:/-]*$');
CREATE DOMAIN chimera_treasury.currency AS text COLLATE "C" CHECK (VALUE ~ '^[A-Z]{3,8}$');
CREATE DOMAIN chimera_treasury.digest AS text COLLATE "C" CHECK (length(VALUE) = 64 AND VALUE ~ '^[0-9a-f]*$');
CREATE DOMAIN chimera_treasury.signature AS text COLLATE "C"
    CHECK (length(VALUE) IN (0, 128) AND VALUE ~ '^[0-9a-f]*$');
CREATE DOMAIN chimera_treasury.line AS text COLLATE "C"
    CHECK (length(VALUE) <= 1000 AND VALUE !~ '[\u0001-\u001f\u007f\u2028\u2029]');
CREATE DOMAIN chimera_treasury.payload AS text COLLATE "C"
    CHECK (length(VALUE) <= 100000 AND VALUE !~ '[\u0001-\u001f]' AND jsonb_typeof(VALUE::jsonb) = 'object');
CREATE DOMAIN chimera_treasury.amount AS bigint CHECK (VALUE BETWEEN 0 AND 1000000000000000000);
CREATE DOMAIN chimera_treasury.quantity AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN chimera_treasury.micros AS bigint CHECK (VALUE BETWEEN 0 AND 9007199254740992);

CREATE TABLE chimera_treasury.account (
    id chimera_treasury.id PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('fund', 'outside', 'metered')),
    currency chimera_treasury.currency NOT NULL,
    title chimera_treasury.line NOT NULL
);
CREATE TABLE chimera_treasury.request (
    id chimera_treasury.id PRIMARY KEY,
    digest chimera_treasury.digest NOT NULL,
    debit chimera_treasury.id NOT NULL,
    credit chimera_treasury.id NOT NULL,
    amount chimera_treasury.amount NOT NULL CHECK (amount > 0),
    currency chimera_treasury.currency NOT NULL,
    category chimera_treasury.id NOT NULL,
    requester chimera_treasury.id NOT NULL,
    mission text COLLATE "C" NOT NULL CHECK (length(mission) <= 128 AND mission ~ '^[]A-Za-z0-9_.:/[-]*$'),
    reason chimera_treasury.line NOT NULL,
    expires_at chimera_treasury.micros NOT NULL
);
CREATE TABLE chimera_treasury.decision (
    request_id chimera_treasury.id NOT NULL,
    verdict text COLLATE "C" NOT NULL CHECK (verdict IN ('approved', 'ask', 'refused')),
    key_id chimera_treasury.id NOT NULL,
    payload chimera_treasury.payload NOT NULL,
    signature chimera_treasury.signature NOT NULL CHECK (signature <> '')
);
CREATE TABLE chimera_treasury.approval (
    request_id chimera_treasury.id NOT NULL,
    approver chimera_treasury.id NOT NULL,
    verdict text COLLATE "C" NOT NULL CHECK (verdict IN ('approved', 'refused')),
    expires_at chimera_treasury.micros NOT NULL,
    key_id chimera_treasury.id NOT NULL,
    payload chimera_treasury.payload NOT NULL,
    signature chimera_treasury.signature NOT NULL,
    PRIMARY KEY (request_id, approver)
);
CREATE TABLE chimera_treasury.transfer (
    id chimera_treasury.id PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('pending', 'posted', 'post', 'void')),
    request_id chimera_treasury.id NOT NULL,
    amount chimera_treasury.amount NOT NULL,
    expires_at chimera_treasury.micros NOT NULL
);
CREATE TABLE chimera_treasury.cap (
    account text COLLATE "C" NOT NULL CHECK (account ~ '^(\*|[A-Za-z0-9][A-Za-z0-9_.:/-]{0,95})$'),
    currency chimera_treasury.currency NOT NULL,
    period text COLLATE "C" NOT NULL
        CHECK (period IN ('last_day', 'last_week', 'last_month', 'day', 'week', 'month')),
    most chimera_treasury.amount NOT NULL
);
CREATE TABLE chimera_treasury.rule (
    currency chimera_treasury.currency NOT NULL,
    ask_over chimera_treasury.amount NOT NULL,
    dual_over chimera_treasury.amount NOT NULL
);
CREATE TABLE chimera_treasury.stop (
    action text COLLATE "C" NOT NULL CHECK (action IN ('stop', 'resume')),
    why chimera_treasury.line NOT NULL,
    by_whom chimera_treasury.id NOT NULL
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{account,request,decision,approval,transfer,cap,rule,stop}'::text[] LOOP
        EXECUTE format(
            'ALTER TABLE chimera_treasury.%I ADD seq bigint NOT NULL UNIQUE CHECK (seq > 0),'
            ' ADD at chimera_treasury.micros NOT NULL, ADD prev chimera_treasury.digest NOT NULL,'
            ' ADD hash chimera_treasury.digest NOT NULL', name);
    END LOOP;
END $$;

CREATE INDEX decision_of ON chimera_treasury.decision (request_id, seq);
CREATE INDEX decision_asks ON chimera_treasury.decision (request_id) WHERE verdict = 'ask';
CREATE INDEX rule_of ON chimera_treasury.rule (currency, seq);
CREATE UNIQUE INDEX transfer_begins ON chimera_treasury.transfer (request_id) WHERE kind IN ('pending', 'posted');
CREATE UNIQUE INDEX transfer_ends ON chimera_treasury.transfer (request_id) WHERE kind IN ('post', 'void');

-- The last row. Whoever adds one locks this first: all writers are in one line.
CREATE TABLE chimera_treasury.head (seq bigint NOT NULL, at bigint NOT NULL, hash text NOT NULL) WITH (fillfactor = 20);
INSERT INTO chimera_treasury.head VALUES (0, 0, repeat('0', 64));

-- The database's own clock, unless one that stands still is set here: for rehearsals and tests, by the owner.
CREATE TABLE chimera_treasury.clock (stands_at chimera_treasury.micros);
INSERT INTO chimera_treasury.clock VALUES (NULL);

CREATE TABLE chimera_treasury.balance (
    account text COLLATE "C" PRIMARY KEY,
    fund bigint NOT NULL,
    posted bigint NOT NULL DEFAULT 0,
    pending_out chimera_treasury.quantity NOT NULL DEFAULT 0,
    pending_in chimera_treasury.quantity NOT NULL DEFAULT 0,
    CHECK (fund = 0 OR posted - pending_out >= 0)
) WITH (fillfactor = 50);
CREATE TABLE chimera_treasury.open_pending (
    request_id text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    debit text COLLATE "C" NOT NULL,
    credit text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX open_pending_ends ON chimera_treasury.open_pending (expires_at) WHERE expires_at > 0;

-- What left a fund: `counts` towards caps if it went outside, and is `small` if nobody approved it. `amount` is what of
-- it was not let go.
CREATE TABLE chimera_treasury.spend (
    seq bigint PRIMARY KEY,
    at bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    payee text COLLATE "C" NOT NULL,
    mission text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount chimera_treasury.quantity NOT NULL,
    counts bigint NOT NULL,
    small bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX spend_of_all ON chimera_treasury.spend (currency, at) WHERE counts = 1;
CREATE INDEX spend_of_account ON chimera_treasury.spend (account, at) WHERE counts = 1;
CREATE INDEX spend_to_payee ON chimera_treasury.spend (payee, at) WHERE small = 1;
CREATE INDEX spend_for_mission ON chimera_treasury.spend (mission, currency, at) WHERE small = 1 AND mission <> '';

-- The sum of the spends from `since` on, of each cap (`kind` cap), and of each payee and mission without approvals.
CREATE TABLE chimera_treasury.used (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    most bigint NOT NULL,
    used chimera_treasury.quantity NOT NULL,
    since bigint NOT NULL,
    PRIMARY KEY (kind, name, currency, period)
) WITH (fillfactor = 50);
