# Computes, and hands back a structured result.
# sim: stdout 25 primes below 100\n
# sim: result {"primes": 25, "sum": 1060, "largest": 97}
primes = [n for n in range(2, 100) if all(n % d for d in range(2, int(n**0.5) + 1))]
print(len(primes), "primes below 100")
enclave.result({"primes": len(primes), "sum": sum(primes), "largest": primes[-1]})
