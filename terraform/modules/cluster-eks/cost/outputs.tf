output "cost" {
  description = "USD a day and a month of 730 hours, rounded to cents, by part and in total."
  value = {
    day = merge(
      { for part, price in local.hours : part => floor(price * 24 * 100 + 0.5) / 100 },
      { total = floor(sum(values(local.hours)) * 24 * 100 + 0.5) / 100 },
    )
    month = merge(
      { for part, price in local.hours : part => floor(price * local.hours_a_month * 100 + 0.5) / 100 },
      { total = floor(sum(values(local.hours)) * local.hours_a_month * 100 + 0.5) / 100 },
    )
  }
}
