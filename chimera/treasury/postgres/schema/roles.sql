-- Who there is: groups that nobody logs in as. A login is made by whoever runs the database, and put into one of them.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{owner,app,cfo,approver}'::text[] LOOP
        name := 'chimera_treasury_' || name;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- somebody made it at the same time, for another database of this server
            END;
        END IF;
    END LOOP;
    IF NOT pg_catalog.pg_has_role(current_user, 'chimera_treasury_owner', 'MEMBER') THEN
        EXECUTE format('GRANT chimera_treasury_owner TO %I', current_user);
    END IF;
    IF pg_catalog.pg_encoding_to_char(
        (SELECT encoding FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) <> 'UTF8' THEN
        RAISE EXCEPTION 'a ledger needs a database in UTF8';
    END IF;
END $$;
CREATE SCHEMA chimera_treasury AUTHORIZATION chimera_treasury_owner;
SET LOCAL ROLE chimera_treasury_owner;
REVOKE ALL ON SCHEMA chimera_treasury FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE TABLE chimera_treasury.version (version bigint NOT NULL);
