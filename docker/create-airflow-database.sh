#!/bin/sh
# Run once by the postgres image, on an empty volume: Airflow gets a database and a user of its own, so that whoever gets hold
# of Airflow's password does not have the customers. The public pages get a user too; `postlude init` says what it may do.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$AIRFLOW_DB_PASSWORD" --set ours="$POSTGRES_DB" --set web_password="$POSTLUDE_WEB_DB_PASSWORD" <<'SQL'
create role airflow login password :'password';
select 'create role postlude_web login' where not exists (select from pg_roles where rolname = 'postlude_web') \gexec
alter role postlude_web password :'web_password';
grant connect on database :"ours" to postlude_web;
create database airflow owner airflow;
revoke connect on database :"ours" from public;
SQL
