-- Nobody changes or removes a row, and each role adds only what is its own.

CREATE FUNCTION chimera_treasury.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM chimera_treasury.refuse('forbidden', format('rows of %s are only ever added', TG_TABLE_NAME));
    RETURN NULL;
END $$;

-- It runs at every step of a transfer. So it changes no settings first, and names what it uses in full.
CREATE FUNCTION chimera_treasury.derived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.<) 2 OR TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
        PERFORM chimera_treasury.refuse(
            'forbidden', pg_catalog.format('%s follows from the rows, and is not written', TG_TABLE_NAME));
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    name text;
    made regprocedure;
BEGIN
    FOREACH name IN ARRAY '{account,request,decision,approval,transfer,cap,rule,stop}'::text[] LOOP
        EXECUTE format(
            'CREATE TRIGGER add BEFORE INSERT ON chimera_treasury.%1$I'
            ' FOR EACH ROW EXECUTE FUNCTION chimera_treasury.add_%1$s();'
            'CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON chimera_treasury.%1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION chimera_treasury.keep();'
            'ALTER TABLE chimera_treasury.%1$I ENABLE ALWAYS TRIGGER add, ENABLE ALWAYS TRIGGER keep', name);
    END LOOP;
    FOREACH name IN ARRAY '{head,balance,open_pending,spend,used}'::text[] LOOP
        EXECUTE format(
            'CREATE TRIGGER derived BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON chimera_treasury.%1$I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION chimera_treasury.derived();'
            'ALTER TABLE chimera_treasury.%1$I ENABLE ALWAYS TRIGGER derived', name);
    END LOOP;
    -- Triggers that add do as the owner does, whatever the writer has set: names, time zone, how text is read.
    FOR made IN SELECT oid FROM pg_catalog.pg_proc
        WHERE pronamespace = 'chimera_treasury'::regnamespace AND prorettype = 'trigger'::regtype
            AND proname <> 'derived'
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, chimera_treasury, pg_temp', made);
        EXECUTE format('ALTER FUNCTION %s SET timezone = ''UTC''', made);
        EXECUTE format('ALTER FUNCTION %s SET standard_conforming_strings = on', made);
    END LOOP;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA chimera_treasury FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA chimera_treasury FROM PUBLIC;
GRANT USAGE ON SCHEMA chimera_treasury
    TO chimera_treasury_app, chimera_treasury_cfo, chimera_treasury_approver;
GRANT SELECT ON ALL TABLES IN SCHEMA chimera_treasury
    TO chimera_treasury_app, chimera_treasury_cfo, chimera_treasury_approver;
GRANT EXECUTE ON FUNCTION chimera_treasury.now_us(), chimera_treasury.begins(text, bigint),
    chimera_treasury.spent(text, text, text, bigint, bigint),
    chimera_treasury.caught_up(chimera_treasury.used, bigint), chimera_treasury.write(jsonb),
    chimera_treasury.insert_rows(jsonb), chimera_treasury.try_row(text, jsonb),
    chimera_treasury.same_row(text, jsonb), chimera_treasury.cap_uses()
    TO chimera_treasury_app, chimera_treasury_cfo, chimera_treasury_approver;

-- Of each table the columns that are the writer's own: nobody has a say in seq, at, prev and hash.
GRANT INSERT (id, kind, currency, title) ON chimera_treasury.account TO chimera_treasury_app;
GRANT INSERT (
    id, digest, debit, credit, amount, currency, category, requester, mission, reason, expires_at
) ON chimera_treasury.request TO chimera_treasury_app;
GRANT INSERT (id, kind, request_id, amount, expires_at) ON chimera_treasury.transfer TO chimera_treasury_app;
GRANT INSERT (request_id, verdict, key_id, payload, signature) ON chimera_treasury.decision TO chimera_treasury_cfo;
GRANT INSERT (request_id, approver, verdict, expires_at, key_id, payload, signature)
    ON chimera_treasury.approval TO chimera_treasury_approver;
GRANT INSERT (action, why, by_whom) ON chimera_treasury.stop TO chimera_treasury_cfo, chimera_treasury_approver;
REVOKE INSERT ON chimera_treasury.request, chimera_treasury.decision, chimera_treasury.approval,
    chimera_treasury.transfer FROM chimera_treasury_owner;

ALTER TABLE chimera_treasury.account ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON chimera_treasury.account FOR SELECT USING (true);
CREATE POLICY app_adds ON chimera_treasury.account FOR INSERT TO chimera_treasury_app WITH CHECK (kind <> 'metered');
ALTER TABLE chimera_treasury.stop ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON chimera_treasury.stop FOR SELECT USING (true);
CREATE POLICY cfo_stops ON chimera_treasury.stop FOR INSERT TO chimera_treasury_cfo WITH CHECK (action = 'stop');
CREATE POLICY approver_resumes ON chimera_treasury.stop FOR INSERT TO chimera_treasury_approver
    WITH CHECK (action = 'resume');
