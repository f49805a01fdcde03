-- store_banner: what the shop's pages show to one customer from now on, until it expires.
--
-- writes  banners
-- params  message uuid, person uuid, campaign text, title text, body text, link text, shown_from timestamptz, shown_until timestamptz
-- re-run  safe: the same message is stored once
insert into banners (message_id, person, campaign_id, title, body, link, shown_from, shown_until)
values (:message, :person, :campaign, :title, :body, :link, :shown_from, :shown_until)
on conflict (message_id) do nothing
