-- What has been spent lately (as chimera/treasury/periods.py has it), and how a row is added to the chain.

CREATE FUNCTION chimera_treasury.refuse(reason text, why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'CH001', MESSAGE = reason || ': ' || why, DETAIL = why;
END $$;

CREATE FUNCTION chimera_treasury.now_us() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(
        (SELECT stands_at FROM chimera_treasury.clock),
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
END $$;

-- The last row, locked, and the time of the one that follows it, which is never earlier.
CREATE FUNCTION chimera_treasury.last() RETURNS chimera_treasury.head LANGUAGE plpgsql AS $$
DECLARE
    found_last chimera_treasury.head;
BEGIN
    SELECT * INTO STRICT found_last FROM chimera_treasury.head FOR UPDATE;
    found_last.at := greatest(found_last.at, chimera_treasury.now_us());
    RETURN found_last;
END $$;

-- As chimera/treasury/chain.py: one line for each value.
CREATE FUNCTION chimera_treasury.link(last chimera_treasury.head, kind text, VARIADIC cells text[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    told text := array_to_string(
        ARRAY[last.hash, (last.seq + 1)::text, kind, last.at::text] || cells || ARRAY[''], chr(10));
    made text := encode(sha256(convert_to(told, 'UTF8')), 'hex');
BEGIN
    UPDATE chimera_treasury.head SET seq = last.seq + 1, at = last.at, hash = made;
    RETURN made;
END $$;

-- The first microsecond of the window that ends at `at`, in whole numbers: no time zone has a say in it.
CREATE FUNCTION chimera_treasury.begins(period text, at bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    day_us CONSTANT bigint := 86400000000;
    day bigint := at / day_us;
BEGIN
    CASE period
    WHEN 'last_day' THEN RETURN at - day_us + 1;
    WHEN 'last_week' THEN RETURN at - 7 * day_us + 1;
    WHEN 'last_month' THEN RETURN at - 30 * day_us + 1;
    WHEN 'day' THEN RETURN day * day_us;
    WHEN 'week' THEN RETURN (day - (day + 3) % 7) * day_us;  -- day 0 was a Thursday
    WHEN 'month' THEN
        RETURN (day + 1 - extract(day FROM date '1970-01-01' + day::integer)::bigint) * day_us;
    END CASE;
END $$;

-- What was spent from one moment on and before another.
CREATE FUNCTION chimera_treasury.spent(
    of_kind text, of_name text, of_currency text, from_at bigint, before_at bigint
) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
DECLARE
    total bigint := 0;
BEGIN
    IF from_at >= before_at THEN
        RETURN 0;
    ELSIF of_kind = 'cap' AND of_name = '*' THEN
        SELECT coalesce(sum(amount), 0) INTO total FROM chimera_treasury.spend
        WHERE counts = 1 AND currency = of_currency AND at >= from_at AND at < before_at;
    ELSIF of_kind = 'cap' THEN
        SELECT coalesce(sum(amount), 0) INTO total FROM chimera_treasury.spend
        WHERE counts = 1 AND account = of_name AND currency = of_currency AND at >= from_at AND at < before_at;
    ELSIF of_kind = 'payee' THEN
        SELECT coalesce(sum(amount), 0) INTO total FROM chimera_treasury.spend
        WHERE small = 1 AND payee = of_name AND currency = of_currency AND at >= from_at AND at < before_at;
    ELSE
        SELECT coalesce(sum(amount), 0) INTO total FROM chimera_treasury.spend
        WHERE small = 1 AND mission <> '' AND mission = of_name AND currency = of_currency
            AND at >= from_at AND at < before_at;
    END IF;
    RETURN total;
END $$;

-- A sum brought up to the moment `now`: what is too old for its window is taken out.
CREATE FUNCTION chimera_treasury.caught_up(old chimera_treasury.used, now bigint) RETURNS chimera_treasury.used
STABLE LANGUAGE plpgsql AS $$
DECLARE
    new chimera_treasury.used := old;
BEGIN
    new.since := greatest(old.since, chimera_treasury.begins(old.period, now));
    new.used := old.used - chimera_treasury.spent(old.kind, old.name, old.currency, old.since, new.since);
    RETURN new;
END $$;

CREATE FUNCTION chimera_treasury.set_used(new chimera_treasury.used) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chimera_treasury.used SET most = new.most, used = new.used, since = new.since
    WHERE kind = new.kind AND name = new.name AND currency = new.currency AND period = new.period;
    IF NOT FOUND THEN
        INSERT INTO chimera_treasury.used VALUES (new.*);
    END IF;
END $$;

-- What a sum is at most, that something was just added to. What became too old for its window in the last minute may be
-- in it still, and is taken out only where the sum does not fit with it: that costs a query.
CREATE FUNCTION chimera_treasury.at_most(counted chimera_treasury.used, fits bigint, now bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    minute_us CONSTANT bigint := 60000000;
BEGIN
    IF counted.used > fits OR chimera_treasury.begins(counted.period, now) - counted.since > minute_us THEN
        counted := chimera_treasury.caught_up(counted, now);
        PERFORM chimera_treasury.set_used(counted);
    END IF;
    RETURN counted.used;
END $$;

-- Counts what nobody approves to the last day's, to a payee or for a mission. Whether they fit together.
CREATE FUNCTION chimera_treasury.count_small(
    of_kind text, of_name text, of_currency text, more bigint, fits bigint, now bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    counted chimera_treasury.used;
BEGIN
    UPDATE chimera_treasury.used SET used = used.used + more
    WHERE kind = of_kind AND name = of_name AND currency = of_currency AND period = 'last_day' RETURNING * INTO counted;
    IF FOUND THEN
        RETURN chimera_treasury.at_most(counted, fits, now) <= fits;
    END IF;
    INSERT INTO chimera_treasury.used VALUES (
        of_kind, of_name, of_currency, 'last_day', 0, more, chimera_treasury.begins('last_day', now));
    RETURN more <= fits;
END $$;

-- What was set aside ends: `moved` of it goes over, the rest is free again.
CREATE FUNCTION chimera_treasury.settle(of_request text, moved bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    pending chimera_treasury.open_pending;
    spent chimera_treasury.spend;
    freed bigint;
BEGIN
    DELETE FROM chimera_treasury.open_pending WHERE request_id = of_request RETURNING * INTO STRICT pending;
    UPDATE chimera_treasury.balance SET posted = posted - moved, pending_out = pending_out - pending.amount
    WHERE account = pending.debit;
    UPDATE chimera_treasury.balance SET posted = posted + moved, pending_in = pending_in - pending.amount
    WHERE account = pending.credit;
    freed := pending.amount - moved;
    SELECT * INTO spent FROM chimera_treasury.spend WHERE seq = pending.seq;
    IF NOT FOUND OR freed = 0 THEN
        RETURN;
    END IF;
    UPDATE chimera_treasury.used SET used = used - freed
    WHERE currency = spent.currency AND since <= spent.at AND (
        (spent.counts = 1 AND kind = 'cap' AND name IN ('*', spent.account))
        OR (spent.small = 1 AND kind = 'payee' AND name = spent.payee)
        OR (spent.small = 1 AND kind = 'mission' AND name = spent.mission));
    UPDATE chimera_treasury.spend SET amount = amount - freed WHERE seq = pending.seq;
END $$;

CREATE FUNCTION chimera_treasury.sweep(now bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM chimera_treasury.settle(request_id, 0)
    FROM chimera_treasury.open_pending WHERE expires_at > 0 AND expires_at <= now;
END $$;
