-- What a transfer has to stand up to, and what follows from it.

CREATE FUNCTION chimera_treasury.finish(moved chimera_treasury.transfer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    pending bigint;
BEGIN
    SELECT amount INTO pending FROM chimera_treasury.open_pending WHERE request_id = moved.request_id;
    IF NOT FOUND THEN
        PERFORM chimera_treasury.refuse(
            CASE WHEN EXISTS (
                SELECT FROM chimera_treasury.transfer
                WHERE request_id = moved.request_id AND kind IN ('pending', 'posted')
            ) THEN 'conflict' ELSE 'unknown' END,
            'nothing is set aside for this request');
    ELSIF (moved.kind = 'post' AND moved.amount BETWEEN 1 AND pending) OR (moved.kind = 'void' AND moved.amount = 0) THEN
        PERFORM chimera_treasury.settle(moved.request_id, moved.amount);
    ELSE
        PERFORM chimera_treasury.refuse('conflict', format('%s of %s cannot be moved', moved.amount, pending));
    END IF;
END $$;

CREATE FUNCTION chimera_treasury.start(moved chimera_treasury.transfer, asked chimera_treasury.request) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    leaves_fund boolean;
    payee text;
    small boolean;
    available bigint;
BEGIN
    IF EXISTS (
        SELECT FROM chimera_treasury.transfer WHERE request_id = asked.id AND kind IN ('pending', 'posted')
    ) THEN
        PERFORM chimera_treasury.refuse('conflict', 'the request has been carried out');
    ELSIF moved.amount <> asked.amount THEN
        PERFORM chimera_treasury.refuse('conflict', format('the request is over %s, not %s', asked.amount, moved.amount));
    ELSIF asked.expires_at <= moved.at THEN
        PERFORM chimera_treasury.refuse('expired', 'the request has expired');
    ELSIF moved.kind = 'pending' AND moved.expires_at BETWEEN 1 AND moved.at THEN
        PERFORM chimera_treasury.refuse('expired', 'it would have expired already');
    END IF;
    SELECT fund = 1, posted - pending_out, (SELECT kind FROM chimera_treasury.account WHERE id = asked.credit)
    INTO leaves_fund, available, payee FROM chimera_treasury.balance WHERE account = asked.debit;
    small := chimera_treasury.authorise(asked, moved.at, leaves_fund, payee = 'metered');
    IF leaves_fund THEN
        IF asked.amount > available THEN
            PERFORM chimera_treasury.refuse('funds', format('%s has %s', asked.debit, available));
        ELSIF payee <> 'fund' THEN
            PERFORM chimera_treasury.count_spend(asked, moved.at);
        END IF;
        INSERT INTO chimera_treasury.spend VALUES (
            moved.seq, moved.at, asked.debit, asked.credit, asked.mission, asked.currency, asked.amount,
            (payee <> 'fund')::integer, small::integer);
    END IF;
    PERFORM chimera_treasury.post(moved, asked);
END $$;

CREATE FUNCTION chimera_treasury.post(moved chimera_treasury.transfer, asked chimera_treasury.request) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF moved.kind = 'posted' THEN
        UPDATE chimera_treasury.balance SET posted = posted - asked.amount WHERE account = asked.debit;
        UPDATE chimera_treasury.balance SET posted = posted + asked.amount WHERE account = asked.credit;
    ELSE
        UPDATE chimera_treasury.balance SET
            pending_out = pending_out + CASE account WHEN asked.debit THEN asked.amount ELSE 0 END,
            pending_in = pending_in + CASE account WHEN asked.credit THEN asked.amount ELSE 0 END
        WHERE account IN (asked.debit, asked.credit);
        INSERT INTO chimera_treasury.open_pending VALUES (
            asked.id, moved.seq, asked.debit, asked.credit, asked.amount, moved.expires_at);
    END IF;
END $$;

-- Refuses what was not agreed to. Whether it is one of those that nobody has to approve, and nobody did: it is counted.
CREATE FUNCTION chimera_treasury.authorise(
    asked chimera_treasury.request, now bigint, leaves_fund boolean, metered boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    cfo text;
    stopped boolean;
    approved bigint;
    signed bigint;
    refused bigint;
    rules chimera_treasury.rule;
BEGIN
    SELECT (SELECT verdict FROM chimera_treasury.decision WHERE request_id = asked.id ORDER BY seq DESC LIMIT 1),
        (SELECT action = 'stop' FROM chimera_treasury.stop ORDER BY seq DESC LIMIT 1),
        count(*) FILTER (WHERE verdict = 'approved' AND expires_at > now),
        count(*) FILTER (WHERE verdict = 'approved' AND expires_at > now AND signature <> ''),
        count(*) FILTER (WHERE verdict = 'refused')
    INTO cfo, stopped, approved, signed, refused FROM chimera_treasury.approval WHERE request_id = asked.id;
    IF cfo IS NULL OR cfo = 'refused' THEN
        PERFORM chimera_treasury.refuse('unsigned', 'the CFO has not agreed');
    ELSIF leaves_fund AND stopped THEN
        PERFORM chimera_treasury.refuse('stopped', 'all spending is stopped, until a person starts it again');
    ELSIF refused > 0 THEN
        PERFORM chimera_treasury.refuse('unapproved', 'a person has refused it');
    ELSIF cfo = 'ask' AND approved = 0 THEN
        PERFORM chimera_treasury.refuse('unapproved', 'the CFO wants a person to approve it');
    ELSIF NOT leaves_fund THEN
        RETURN false;
    END IF;
    SELECT * INTO rules FROM chimera_treasury.rule WHERE currency = asked.currency ORDER BY seq DESC LIMIT 1;
    IF rules.seq IS NULL THEN
        PERFORM chimera_treasury.refuse('forbidden', format('there are no rules for %s', asked.currency));
    ELSIF asked.amount > rules.dual_over AND approved < 2 AND signed = 0 THEN
        PERFORM chimera_treasury.refuse('unapproved', 'two keys are needed: two people, or one who signs');
    ELSIF approved > 0 OR metered THEN
        RETURN false;
    ELSIF asked.amount > rules.ask_over
        OR NOT chimera_treasury.count_small('payee', asked.credit, asked.currency, asked.amount, rules.ask_over, now)
        OR asked.mission <> '' AND NOT chimera_treasury.count_small(
            'mission', asked.mission, asked.currency, asked.amount, rules.ask_over, now)
    THEN
        PERFORM chimera_treasury.refuse(
            'unapproved', 'a person has to approve it: it is above the limit, alone or with others');
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION chimera_treasury.count_spend(asked chimera_treasury.request, now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    cap chimera_treasury.used;
    capped boolean := false;
BEGIN
    FOR cap IN
        WITH counted AS (
            UPDATE chimera_treasury.used SET used = used.used + asked.amount
            WHERE kind = 'cap' AND currency = asked.currency AND name IN ('*', asked.debit) RETURNING *
        ) SELECT * FROM counted ORDER BY name, period
    LOOP
        cap.used := chimera_treasury.at_most(cap, cap.most, now);
        IF cap.used > cap.most THEN
            PERFORM chimera_treasury.refuse('cap', format(
                '%s of %s is used (%s, %s)', cap.used - asked.amount, cap.most, cap.name, cap.period));
        END IF;
        capped := capped OR cap.name = '*';
    END LOOP;
    IF NOT capped THEN
        PERFORM chimera_treasury.refuse('cap', format('no caps are set for %s', asked.currency));
    END IF;
END $$;
