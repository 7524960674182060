-- What a row may be (as chimera/treasury/book.py has it, in the same order): one trigger for each table.

CREATE FUNCTION chimera_treasury.add_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
BEGIN
    IF EXISTS (SELECT FROM chimera_treasury.account WHERE id = NEW.id) THEN
        PERFORM chimera_treasury.refuse('conflict', format('there is an account %s', NEW.id));
    END IF;
    INSERT INTO chimera_treasury.balance (account, fund) VALUES (NEW.id, (NEW.kind = 'fund')::integer);
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(last, 'account', NEW.id, NEW.kind, NEW.currency, NEW.title);
    RETURN NEW;
END $$;

-- The canonical JSON of a request, which its digest is of. No value holds a control character.
CREATE FUNCTION chimera_treasury.canonical(asked chimera_treasury.request) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    slash CONSTANT text := chr(92);
    quote CONSTANT text := chr(34);
BEGIN
    RETURN format(
        '{"amount":%s,"category":"%s","credit":"%s","currency":"%s","debit":"%s","expires_at":%s,"id":"%s",'
        || '"mission":"%s","reason":"%s","requester":"%s"}',
        asked.amount, asked.category, asked.credit, asked.currency, asked.debit, asked.expires_at, asked.id,
        asked.mission, replace(replace(asked.reason, slash, slash || slash), quote, slash || quote), asked.requester);
END $$;

CREATE FUNCTION chimera_treasury.add_request() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
    name text;
    in_currency text;
BEGIN
    IF EXISTS (SELECT FROM chimera_treasury.request WHERE id = NEW.id) THEN
        PERFORM chimera_treasury.refuse('conflict', format('there is a request %s', NEW.id));
    END IF;
    FOREACH name IN ARRAY ARRAY[NEW.debit::text, NEW.credit::text] LOOP
        SELECT currency INTO in_currency FROM chimera_treasury.account WHERE id = name;
        IF NOT FOUND THEN
            PERFORM chimera_treasury.refuse('unknown', format('there is no account %s', name));
        ELSIF in_currency <> NEW.currency THEN
            PERFORM chimera_treasury.refuse('conflict', format('the account %s is not in %s', name, NEW.currency));
        END IF;
    END LOOP;
    IF NEW.debit = NEW.credit THEN
        PERFORM chimera_treasury.refuse('conflict', 'an account does not pay itself');
    ELSIF NEW.expires_at <= last.at THEN
        PERFORM chimera_treasury.refuse('expired', 'the request has expired');
    ELSIF NEW.digest <> encode(sha256(convert_to(chimera_treasury.canonical(NEW), 'UTF8')), 'hex') THEN
        PERFORM chimera_treasury.refuse('conflict', 'the digest is another request''s');
    END IF;
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(
        last, 'request', NEW.id, NEW.digest, NEW.debit, NEW.credit, NEW.amount::text, NEW.currency,
        NEW.category, NEW.requester, NEW.mission, NEW.reason, NEW.expires_at::text);
    RETURN NEW;
END $$;

-- The request that a word is about. The word has to say so itself, in what was signed: `told` are its columns.
CREATE FUNCTION chimera_treasury.spoken_of(about text, payload text, told jsonb) RETURNS chimera_treasury.request
LANGUAGE plpgsql AS $$
DECLARE
    asked chimera_treasury.request;
    said CONSTANT jsonb := payload;
BEGIN
    SELECT * INTO asked FROM chimera_treasury.request WHERE id = about;
    IF NOT FOUND THEN
        PERFORM chimera_treasury.refuse('unknown', format('there is no request %s', about));
    ELSIF (said ->> 'request_digest') IS DISTINCT FROM asked.digest THEN
        PERFORM chimera_treasury.refuse('conflict', 'it speaks of another request: the digest differs');
    ELSIF NOT said @> told THEN
        PERFORM chimera_treasury.refuse('conflict', 'its columns are not what was signed');
    ELSIF EXISTS (SELECT FROM chimera_treasury.transfer WHERE request_id = about AND kind IN ('pending', 'posted')) THEN
        PERFORM chimera_treasury.refuse('conflict', 'the request has been carried out');
    END IF;
    RETURN asked;
END $$;

CREATE FUNCTION chimera_treasury.add_decision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
BEGIN
    IF EXISTS (SELECT FROM chimera_treasury.decision WHERE request_id = NEW.request_id AND payload = NEW.payload) THEN
        PERFORM chimera_treasury.refuse('conflict', 'this decision is there');
    END IF;
    PERFORM chimera_treasury.spoken_of(NEW.request_id, NEW.payload, jsonb_build_object(
        'chimera', 'CfoDecision', 'request_id', NEW.request_id::text, 'verdict', NEW.verdict,
        'key_id', NEW.key_id::text));
    IF NEW.signature = '' THEN
        PERFORM chimera_treasury.refuse('unsigned', 'a decision has to be signed');
    END IF;
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(
        last, 'decision', NEW.request_id, NEW.verdict, NEW.key_id, NEW.payload, NEW.signature);
    RETURN NEW;
END $$;

CREATE FUNCTION chimera_treasury.add_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
    asked chimera_treasury.request;
BEGIN
    asked := chimera_treasury.spoken_of(NEW.request_id, NEW.payload, jsonb_build_object(
        'chimera', 'Approval', 'request_id', NEW.request_id::text, 'approver', NEW.approver::text,
        'verdict', NEW.verdict, 'key_id', NEW.key_id::text, 'expires_at', NEW.expires_at::bigint));
    IF NEW.approver = asked.requester THEN
        PERFORM chimera_treasury.refuse('forbidden', 'nobody approves what they asked for');
    ELSIF EXISTS (
        SELECT FROM chimera_treasury.approval WHERE request_id = NEW.request_id AND approver = NEW.approver
    ) THEN
        PERFORM chimera_treasury.refuse('conflict', format('%s has answered', NEW.approver));
    ELSIF NEW.expires_at <= last.at THEN
        PERFORM chimera_treasury.refuse('expired', 'the approval has expired');
    END IF;
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(
        last, 'approval', NEW.request_id, NEW.approver, NEW.verdict, NEW.expires_at::text, NEW.key_id,
        NEW.payload, NEW.signature);
    RETURN NEW;
END $$;

CREATE FUNCTION chimera_treasury.add_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
    asked chimera_treasury.request;
BEGIN
    IF EXISTS (SELECT FROM chimera_treasury.transfer WHERE id = NEW.id) THEN
        PERFORM chimera_treasury.refuse('conflict', format('there is a transfer %s', NEW.id));
    END IF;
    PERFORM chimera_treasury.sweep(last.at);
    SELECT * INTO asked FROM chimera_treasury.request WHERE id = NEW.request_id;
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    IF NOT FOUND THEN
        PERFORM chimera_treasury.refuse('unknown', format('there is no request %s', NEW.request_id));
    ELSIF NEW.kind IN ('post', 'void') THEN
        PERFORM chimera_treasury.finish(NEW);
    ELSE
        PERFORM chimera_treasury.start(NEW, asked);
    END IF;
    NEW.hash := chimera_treasury.link(
        last, 'transfer', NEW.id, NEW.kind, NEW.request_id, NEW.amount::text, NEW.expires_at::text);
    RETURN NEW;
END $$;

-- A cap sums from the first moment of its window, also over what was spent before it was set.
CREATE FUNCTION chimera_treasury.add_cap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
    since bigint := chimera_treasury.begins(NEW.period, last.at);
BEGIN
    PERFORM chimera_treasury.set_used(ROW(
        'cap', NEW.account, NEW.currency, NEW.period, NEW.most,
        chimera_treasury.spent('cap', NEW.account, NEW.currency, since, last.at + 1), since
    )::chimera_treasury.used);
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(last, 'cap', NEW.account, NEW.currency, NEW.period, NEW.most::text);
    RETURN NEW;
END $$;

CREATE FUNCTION chimera_treasury.add_rule() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
BEGIN
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(last, 'rule', NEW.currency, NEW.ask_over::text, NEW.dual_over::text);
    RETURN NEW;
END $$;

CREATE FUNCTION chimera_treasury.add_stop() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last chimera_treasury.head := chimera_treasury.last();
BEGIN
    NEW.seq := last.seq + 1; NEW.at := last.at; NEW.prev := last.hash;
    NEW.hash := chimera_treasury.link(last, 'stop', NEW.action, NEW.why, NEW.by_whom);
    RETURN NEW;
END $$;
