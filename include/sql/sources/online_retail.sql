-- Online Retail II: one table of invoice lines, from which customers, articles and orders are gathered.
-- Raw values are text. Values given as text are read by intake, which refuses the row and says why when one cannot be read.

-- entity: customers
select
    "CustomerID" as source_customer_id,
    "CustomerID" || '@customers.example' as email, -- the file has no addresses
    (array_agg("Country" order by "InvoiceDate" desc, "_line" desc))[1] as country, -- some moved: the newest line says
    min(to_instant("InvoiceDate")) as created_at
from sales
where "CustomerID" is not null
group by "CustomerID"

-- entity: consents
-- a decision of the shop: who bought may be told about similar goods until they say no (soft opt-in)
select
    "CustomerID" as source_customer_id,
    'email' as channel,
    'marketing' as topic,
    true as granted,
    min(to_instant("InvoiceDate")) as at,
    'soft_opt_in' as basis
from sales
where "CustomerID" is not null
group by "CustomerID"
having min(to_instant("InvoiceDate")) is not null

-- entity: products
select
    "StockCode" as sku,
    coalesce((array_agg(btrim("Description") order by "InvoiceDate" desc, "_line" desc)
        filter (where btrim("Description") <> '' and to_number("UnitPrice") > 0))[1], "StockCode") as name,
    (array_agg("UnitPrice" order by "InvoiceDate" desc, "_line" desc) filter (where to_number("UnitPrice") > 0))[1] as price
from sales
where "StockCode" is not null
group by "StockCode"

-- entity: orders
-- invoices that start with C are cancellations: they are orders that never counted, and are not netted against others
select
    "InvoiceNo" as source_order_id,
    max("CustomerID") as source_customer_id,
    case when upper(left("InvoiceNo", 1)) = 'C' then 'cancelled' else 'invoiced' end as status,
    min("InvoiceDate") as placed_at,
    case when upper(left("InvoiceNo", 1)) = 'C' then min("InvoiceDate") end as cancelled_at
from sales
where "InvoiceNo" is not null
group by "InvoiceNo"

-- entity: order_lines
select
    "InvoiceNo" as source_order_id,
    "StockCode" as sku,
    "Description" as description,
    "Quantity" as quantity,
    "UnitPrice" as unit_price,
    "InvoiceDate" as placed_at,
    _file,
    _line
from sales
